"""The model as arithmetic: the shapes of its parameters, its FLOPs, its vocabulary, and how its layers divide into stages."""
