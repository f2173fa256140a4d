"""Readers of the weight files of other frameworks, which execute nothing of them."""
