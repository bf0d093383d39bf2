"""Model parallelism: process groups, autograd collectives, sharded parameters and the layers split over tensor-parallel ranks."""
