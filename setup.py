"""Installs the `megatron` package for use from notebooks and scripts; training itself runs from the checkout (`deepy.py`)."""

from setuptools import find_packages, setup

setup(packages=find_packages(include=["megatron", "megatron.*"]))
