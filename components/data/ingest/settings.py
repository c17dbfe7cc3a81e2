"""What people may tune in `ingest`."""

from pydantic import Field

from components.core.step import StepSettings, runtime, threshold


class IngestSettings(StepSettings):
    """Settings of `ingest`; sizes in bytes and pixels, times in seconds."""

    images_per_shard: int = Field(
        1000, description="URLs per tar shard; lost images leave their shard smaller", ge=1
    )
    max_bytes: int = Field(20_000_000, description="largest download, in bytes", ge=1)
    # The later steps open no larger images: `pixclip.images.DEFAULT_MAX_PIXELS`.
    max_pixels: int = Field(50_000_000, description="largest image, in pixels", ge=1, le=50_000_000)
    min_side_px: int = Field(200, description="smallest short side of an image, in pixels", ge=1)
    min_success_rate: float = threshold(
        0.3, "share of URLs that must give an image (old web lists rot)", ge=0, le=1
    )
    max_unanswered_share: float = threshold(
        0.2,
        "share of URLs that may end without any answer (no connection, time-outs, 429, 5xx, "
        "certificates): more of them speak of the network, not of the list; a standard deviation "
        "of their number is added, which counts in short lists",
        ge=0,
        le=1,
    )
    allowed_hosts: tuple[str, ...] = Field(
        (), description="hosts that may have private addresses, e.g. an image server of your own"
    )
    s3_buckets: tuple[str, ...] = Field(
        (), description="buckets that s3:// URLs may name; empty refuses s3://"
    )
    max_redirects: int = Field(5, description="redirects followed per URL", ge=0, le=20)
    respect_noai: bool = Field(
        True, description="leave out images whose X-Robots-Tag forbids AI use (noai, noindex, …)"
    )
    verify_tls: bool = Field(True, description="refuse servers with an invalid certificate")
    user_agent: str = Field("pixclip/0.1", description="User-Agent header", min_length=1)

    file_root: str = runtime(
        "", "folder that file:/// URLs are relative to; empty refuses file:// URLs"
    )
    s3_endpoint: str = runtime("", "S3 endpoint URL; empty means the one boto3 is configured for")
    concurrency: int = runtime(64, "downloads at a time", ge=1, le=4096)
    concurrency_per_host: int = runtime(16, "downloads at a time from one host", ge=1)
    decode_threads: int = runtime(0, "threads that check images; 0 means one a core", ge=0)
    retries: int = runtime(2, "further attempts after a transient failure", ge=0, le=20)
    backoff_s: float = runtime(0.5, "pause before the first retry, in seconds; it doubles", ge=0)
    max_backoff_s: float = runtime(60.0, "longest pause, also for Retry-After, in seconds", ge=0)
    connect_timeout_s: float = runtime(10.0, "limit for connecting, in seconds", gt=0)
    read_timeout_s: float = runtime(15.0, "limit between two pieces of data, in seconds", gt=0)
    total_timeout_s: float = runtime(60.0, "limit for one attempt as a whole, in seconds", gt=0)
