"""What the tables of the configuration have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A table of the file. Unknown keys are errors, values are frozen, and no error quotes a value."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)


class ClusterRule(Section):
    """A rule for the clusters whose project, name and tags match the globs. All globs that are set must match."""

    project: str | None = None
    cluster: str | None = None
    tag: str | None = None

    @model_validator(mode="after")
    def _matches_something(self) -> ClusterRule:
        if self.project is None and self.cluster is None and self.tag is None:
            raise ValueError('needs at least one of project, cluster, tag; cluster = "*" matches every cluster')
        return self
