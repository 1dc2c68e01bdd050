"""Simulated MR elastography of the liver: physics, console, DICOM, truth.

`cases.write_case` writes an exam as a case folder, `samples.sample_slices` gives slices for training.
"""
