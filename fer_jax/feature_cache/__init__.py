"""The feature cache: what a frozen part of a network says of each image, computed once and kept.

Where nothing below a phase's boundary can change, the activations there are a function of the image, the view and the
weights. They are computed once, kept on disk under a key of everything that they depend on, and take the place of
images in the batch: a phase of many epochs then costs one pass through the frozen part, and the next run none.
"""
