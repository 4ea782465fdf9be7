"""Export an encoder to other libraries, with a verification there."""
