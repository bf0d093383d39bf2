"""All mutations: a module of mistakes enters its own when it is imported."""

from __future__ import annotations

from tests.distributed.matrix import mistakes_in_engine, mistakes_in_layers, mistakes_of_deepspeed
from tests.distributed.matrix.mutation import MUTATIONS

MODULES = (mistakes_in_layers, mistakes_in_engine, mistakes_of_deepspeed)
BY_NAME = {mutation.name: mutation for mutation in MUTATIONS}
