"""What a dataset holds (discovery) and how results are named and described (derivatives)."""
