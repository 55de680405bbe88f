"""The view as frozen records, the session, the link."""
