"""What is this? Header evidence first, pixels where headers are silent; every verdict carries its reason."""
