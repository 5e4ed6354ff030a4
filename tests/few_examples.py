"""For properties each of whose examples takes long: a quarter of what the profile gives to the others."""

from hypothesis import settings

assert settings.default is not None
few_examples = settings(max_examples=max(1, settings.default.max_examples // 4))
