"""SUPERB (Yang et al. 2021, arXiv 2105.01051): what a frozen encoder knows, by small models that learn from a weighted sum of its layers."""
