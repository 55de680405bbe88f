"""Plotly figures of bra's records: pure functions that the app, the reports and notebooks share."""
