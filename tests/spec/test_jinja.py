"""What check says about templates."""

from __future__ import annotations

import pytest

from edgewright.spec.faults import Faults
from edgewright.spec.jinja import CONTEXT_NAMES, check_template
from edgewright.spec.notify import NAMES


def told(text: str, names: frozenset[str] = CONTEXT_NAMES) -> list[str]:
    faults = Faults("p.yaml")
    check_template(text, ("x",), faults, names=names)
    return [fault.message for fault in faults.found]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{{ ds }}",
        "{{ dag_run.conf['x'] | default(3) }}",
        "{{ logical_date | ds_nodash }}",
        "{% for one in params.all %}{{ one }}{{ loop.index }}{% endfor %}",
        "{% set day = ds %}{{ day }}",
        "{% if other is defined %}{{ other }}{% endif %}{{ perhaps | default('x') }}",
        "{{ macros.ds_add(ds, 7) }} {{ range(3) | list }}",
        "{# dss #}",
        "{% raw %}{{ dss }}{% endraw %}",
    ],
)
def test_a_good_template_has_no_faults(text: str) -> None:
    assert told(text) == []


@pytest.mark.parametrize("inner", ["(" * 5000 + "1" + ")" * 5000, "+".join(["ds"] * 5000)])
def test_one_that_is_nested_too_deeply_is_refused(inner: str) -> None:
    assert told("{{ " + inner + " }}") == ["not a template: nested too deeply"]


def test_messages_know_names_and_filters_of_their_own() -> None:
    assert told("{{ message | upper }} {{ ds }}", frozenset(NAMES)) == ["no such name: 'ds'"]
    assert told("{{ time | ds }}", frozenset(NAMES)) == ["no such filter: 'ds'"]
