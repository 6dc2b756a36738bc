"""Stands in for AMD's quantizer."""

__version__ = "3.5.0-stand-in"
