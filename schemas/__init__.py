"""The JSON Schemas (draft 2020-12) that requests, answers and configuration are held against."""
