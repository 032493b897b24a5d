"""Golden vectors: problems whose answers are certified, for code in any language."""

from reference.vectors.certified import NotVerifiedError, Vector
from reference.vectors.files import read_vectors, write_vectors

__all__ = ["NotVerifiedError", "Vector", "read_vectors", "write_vectors"]
