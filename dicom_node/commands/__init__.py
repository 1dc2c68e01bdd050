"""Commands of `dicom-node` that have a module of their own; cli.py has the others and joins them."""
