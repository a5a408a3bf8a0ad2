"""The HTTP service of `mitoscope serve`: a field in, its mitoses out. Needs the extra `serve`."""
