"""Files as bytes: written whole or not at all, fetched once, kept in a cache, hashed."""

from .atomic import atomic_file, write_text
from .cache import cache_home

__all__ = ['atomic_file', 'cache_home', 'write_text']
