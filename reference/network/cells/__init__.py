"""The cells: a file each, with the step as its paper writes it and the axes of its parameters."""
