"""The JSON Schemas (draft 2020-12) that requests and configuration are held against."""
