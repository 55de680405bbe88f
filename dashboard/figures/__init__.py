"""Charts as Vega-Lite specifications: records in, a plain dict out; Streamlit draws them in its own theme."""
