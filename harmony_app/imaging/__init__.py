"""Pure functions on :class:`~harmony_app.imaging.volume.Volume`; they know no BIDS and no Nipype."""
