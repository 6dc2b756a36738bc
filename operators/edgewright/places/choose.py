"""Which place answers a request: the profile that a task names, or its fall-back where it has one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewright.errors import ConfigError
from edgewright.installation import Installation
from edgewright.places.containers import Container
from edgewright.places.foreign import refusal as foreign_refusal
from edgewright.places.nodes import refusal as nodes_refusal
from edgewright.places.pod_template import with_pod
from edgewright.places.pods import refusal as pod_refusal
from edgewright.spec.profiles import LOCAL, Profile, profile_of
from edgewright.steps.contract import StepRequest

log = logging.getLogger("edgewright.places")


def choose(
    profile: str | None, preferred: str | None, own: Mapping[str, Any], installation: Installation, request: StepRequest
) -> Profile:
    """Return the profile that answers a request.

    Args:
        profile: What the task names, or its fall-back.
        preferred: What is taken instead where it can be honoured.
        own: The pipeline's own profiles.
        installation: It may have more.
        request: What is asked.

    Raises:
        ConfigError: the profile does not exist, or cannot be honoured.
    """
    folder = Path(request.source.folder) if request.source else None
    if preferred not in (None, "local"):
        try:
            wanted = with_pod(profile_of(preferred, own, installation.profiles), folder)
            reason = refusal(wanted, request)
        except ConfigError as error:
            reason = error.message
        if reason is None:
            return wanted
        log.info(
            "profile %s is not here (%s): running in %s, as the task allows", preferred, reason, profile or "local"
        )
    elif preferred == "local":
        return LOCAL
    found = with_pod(profile_of(profile, own, installation.profiles), folder)
    reason = refusal(found, request)
    if reason is not None:
        raise ConfigError(f"profile {profile!r} cannot be honoured: {reason}", where="profile",
                          hint=f"mend the profile, or write profile: {{prefer: {profile}, else: local}}")  # fmt: skip
    return found


def refusal(profile: Profile, request: StepRequest) -> str | None:
    """Return why a profile cannot be honoured for a request, or ``None``."""
    if profile.foreign and (reason := foreign_refusal(profile, request)):
        return reason
    if profile.on == "docker":
        return Container(profile).refusal(request)
    if profile.on == "kubernetes":
        if reason := nodes_refusal(profile, request):
            return reason
        return pod_refusal(profile, request)
    return None
