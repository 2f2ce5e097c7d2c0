"""Secrets that workers never hold: which rule adds which, where they come from, who may see one."""
