"""RouteScope, the app."""
