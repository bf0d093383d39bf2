"""Which documents make up sample i: arrays built once, kept beside the data and mapped into memory."""
