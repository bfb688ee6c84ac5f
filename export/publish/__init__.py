"""Packed models sent to buckets, directories and hubs; nothing published is overwritten."""
