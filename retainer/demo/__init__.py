"""A try-out without an account: a local stand-in for the 100ms API, and made-up recordings to serve
from it."""
