"""Physics simulation of travelling subjects."""
