"""What is wrong with a data set: damaged images, duplicates, leaks."""
