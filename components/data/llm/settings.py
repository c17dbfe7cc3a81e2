"""The settings of asking language models: one section for each stage, and the client's patience."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from components.core.step import StepSettings, runtime

StageName = str  # a describer names its own stages
PROMPT_PATTERN = r"^[a-z0-9_]+\.v[0-9]+\.j2$"
Prompts = dict[str, Annotated[str, Field(pattern=PROMPT_PATTERN)]]  # subset -> prompt file


class StageSettings(BaseModel):
    """A stage: where it asks, which model, with which prompt and sampling."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoints: tuple[str, ...] = runtime(
        (), "base URLs of OpenAI-compatible servers of this model, e.g. http://host:8000/v1"
    )
    api_key_env: str = runtime(
        "", "name of the environment variable that holds the servers' API key; empty for none"
    )
    model: str = Field("", description="model id, as the servers name it")
    prompt: str = Field(
        "", pattern=PROMPT_PATTERN, description="file in components/data/llm/prompts"
    )
    prompts: Prompts = Field(
        default_factory=dict,
        description="prompt files of subsets that have their own: {bird: part_bird.v1.j2}",
    )
    is_structured: bool = Field(
        True, description="ask for JSON by schema; only for servers that know no response_format"
    )
    temperature: float = Field(0.2, ge=0, le=2, description="sampling temperature")
    top_p: float = Field(0.9, gt=0, le=1, description="nucleus sampling: probability mass")
    max_tokens: int = Field(512, ge=16, description="tokens an answer may have, thinking included")
    token_limit_name: Literal["max_tokens", "max_completion_tokens"] = runtime(
        "max_tokens", "how the servers call max_tokens; newer reasoning models know only the other"
    )
    unsent: tuple[Literal["temperature", "top_p", "seed"], ...] = Field(
        (), description="sampling settings to leave out, for servers that refuse them"
    )
    seed: int = Field(0, ge=0, description="seed of the sampling, for servers that honour it")
    prompt_usd_per_million: float = Field(
        0.0, ge=0, description="price of a million prompt tokens in US dollars"
    )
    completion_usd_per_million: float = Field(
        0.0, ge=0, description="price of a million answer tokens in US dollars"
    )

    @field_validator("endpoints")
    @classmethod
    def _are_base_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("an endpoint is a base URL like http://host:8000/v1")
            if any(char.isspace() or not char.isprintable() for char in url) or parts.port == 0:
                raise ValueError("an endpoint is an address without blanks, and its port is not 0")
            if parts.query:
                raise ValueError(
                    "no query in an endpoint: for a key, name a variable in api_key_env"
                )
        return tuple(url.rstrip("/") for url in urls)

    def cost_usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The price of so many tokens."""
        prompt = prompt_tokens * self.prompt_usd_per_million
        return (prompt + completion_tokens * self.completion_usd_per_million) / 1e6


class ClientSettings(StepSettings):
    """Base of the settings of a step that asks language models."""

    concurrency: int = runtime(32, "requests in flight at one endpoint, at most", ge=1)
    request_timeout_s: float = runtime(300.0, "seconds an answer may take", gt=0)
    connect_timeout_s: float = runtime(10.0, "seconds a connection may take", gt=0)
    max_attempts: int = runtime(
        6, "failed tries (time-outs, resets, 5xx) after which a request is given up", ge=1
    )
    probe_interval_s: float = runtime(5.0, "seconds between probes of a dead endpoint", gt=0)
    give_up_after_s: float = runtime(
        900.0, "seconds without any answer from a stage's endpoints until the step fails", gt=0
    )
    use_proxy: bool = runtime(False, "reach the endpoints through the proxy of the environment")

    @property
    def stages(self) -> dict[StageName, StageSettings]:
        """The stages in their order."""
        raise NotImplementedError
