"""Readers of file formats: DICOM, NIfTI, raster images, members of tars, tables."""
