"""One rank of a training of PA-CLIP.

torchrun --nproc-per-node 2 -m pixclip.training.run_parts --job job.json
"""

from pathlib import Path

from pixclip.config import ClipTextConfig
from pixclip.data.loader import FgPart
from pixclip.model import PixClip
from pixclip.preprocess import Preprocess
from pixclip.text.clip_tokenizer import ClipTokenizer
from pixclip.training.job import PartJob
from pixclip.training.paclip import PaClipObjective
from pixclip.training.run import Training, run_rank, train_model


def train(job: PartJob) -> bool:
    """Train a stage of PA-CLIP; `False` if it was stopped before its end."""

    def prepare(model: PixClip) -> Training:
        text = model.config.text
        if not isinstance(text, ClipTextConfig):
            raise ValueError(
                f"{job.parent} reads texts by a frozen language model; PA-CLIP trains CLIP's own "
                "text transformer: begin with a model of text.kind clip"
            )
        tokenizer = ClipTokenizer.open(Path(job.parent) / "text_tower", text)
        preprocess = Preprocess(model.config.vision.image_size_px, model.config.preprocess)
        data = FgPart(job.dataset, "train", preprocess, tokenizer, job.stage.data)
        return Training(PaClipObjective(model, job.stage.losses), data)

    return train_model(job, job.stage, prepare)


def main() -> None:
    """Be a rank of the job that `--job` names."""
    run_rank(PartJob, train, __doc__)


if __name__ == "__main__":
    main()
