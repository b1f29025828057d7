"""Promotion: trials pause at a rung, and the more promising half of each bracket resumes."""
