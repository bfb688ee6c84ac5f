"""Publish packed models in buckets, directories and hubs; nothing published is overwritten."""
