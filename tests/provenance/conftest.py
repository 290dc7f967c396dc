"""The tiny sampler of the tests of sampling."""

from tests.sampling.conftest import checkpoint, options, sampler, template  # noqa: F401
