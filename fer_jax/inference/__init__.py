"""Trained networks on images, photographs and videos, and behind a web server."""
