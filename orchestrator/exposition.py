"""Metric families as plain JSON: how the gateways' figures reach control, are summed, and are written for Prometheus."""
