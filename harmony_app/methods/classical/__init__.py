"""Methods without training: maps of intensity, swapped spectra, unwanted factors of a group.

None rests on the library ``intensity-normalization``. Its version 3.0.1 scales the bandwidth of
its kernel density with the brightest voxel, so that the kernel is wider than the whole histogram of a
scan in usual units: the mode that it takes for T2w and FLAIR is then about the mean.
"""
