"""Mistakes that converters of models make, each planted by changing one thing in ours: what the tests of conversions must see caught."""
