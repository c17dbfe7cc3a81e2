"""CLIP's own text tower in the names of public weights, and what is known of it."""

from pixclip.config import ClipTextConfig, ModelConfig
from pixclip.importers.rules import Drop, TextFacts, Use, first_rows, further_rows, transposed

OTHER_TEXT_TOWER = "CLIP's own text tower; texts are read by a language model here"
POSITIONS = "text.position_embedding"


def openai_text(prefix: str = "") -> tuple[Use, ...]:
    """OpenAI's names, which open_clip and EVA-CLIP keep, beside `visual.` or below `text.`."""
    return (
        Use(f"{prefix}positional_embedding", POSITIONS),
        *_openai_rest(prefix),
    )


def longclip_text() -> tuple[Use, ...]:
    """Long-CLIP's: of the first table the first rows count, of the second all others."""
    return (
        Use("positional_embedding", POSITIONS, first_rows, part=0, num_parts=2),
        Use("positional_embedding_res", POSITIONS, further_rows, part=1, num_parts=2),
        *_openai_rest(""),
    )


def _openai_rest(prefix: str) -> tuple[Use, ...]:
    block, ours = f"{prefix}transformer.resblocks.#.", "text.blocks.#."
    return (
        Use(f"{prefix}token_embedding.weight", "text.token_embedding.weight"),
        Use(f"{block}ln_1.&", f"{ours}norm1.&"),
        Use(f"{block}attn.in_proj_&", f"{ours}attention.qkv.&"),
        Use(f"{block}attn.out_proj.&", f"{ours}attention.out.&"),
        Use(f"{block}ln_2.&", f"{ours}norm2.&"),
        Use(f"{block}mlp.c_fc.&", f"{ours}mlp.fc1.&"),
        Use(f"{block}mlp.c_proj.&", f"{ours}mlp.fc2.&"),
        Use(f"{prefix}ln_final.&", "text.norm_post.&"),
        Use(f"{prefix}text_projection", "text.projection.weight", transposed),
    )


BLOCK, EMBEDDINGS = "text_model.encoder.layers.#.", "text_model.embeddings."


def huggingface_text(
    projection: str = "text_projection", *, has_two_tables: bool = False
) -> tuple[Use, ...]:
    """transformers' names; FG-CLIP has several tables of positions and projections."""
    ours = "text.blocks.#."
    table = f"{EMBEDDINGS}position_embedding"
    tables: tuple[Use, ...] = (Use(f"{table}.weight", POSITIONS),)
    if has_two_tables:
        tables = (
            Use(f"{table}_ori.weight", POSITIONS, first_rows, part=0, num_parts=2),
            Use(f"{table}_res.weight", POSITIONS, further_rows, part=1, num_parts=2),
        )
    return (
        *tables,
        Use(f"{EMBEDDINGS}token_embedding.weight", "text.token_embedding.weight"),
        Use(f"{BLOCK}layer_norm1.&", f"{ours}norm1.&"),
        *(
            Use(f"{BLOCK}self_attn.{name}_proj.&", f"{ours}attention.qkv.&", part=i, num_parts=3)
            for i, name in enumerate("qkv")
        ),
        Use(f"{BLOCK}self_attn.out_proj.&", f"{ours}attention.out.&"),
        Use(f"{BLOCK}layer_norm2.&", f"{ours}norm2.&"),
        Use(f"{BLOCK}mlp.fc1.&", f"{ours}mlp.fc1.&"),
        Use(f"{BLOCK}mlp.fc2.&", f"{ours}mlp.fc2.&"),
        Use("text_model.final_layer_norm.&", "text.norm_post.&"),
        Use(f"{projection}.weight", "text.projection.weight"),
    )


# Text towers of other kinds in open_clip's files, which only a language model can replace.
OTHER_TEXT_DROPS = (
    Drop("text.transformer.*", OTHER_TEXT_TOWER),
    Drop("text.proj.*", OTHER_TEXT_TOWER),
)


def usual_text(config: ModelConfig, activation: str | None) -> TextFacts:
    """What all of CLIP's text towers have in common, but for their activation."""
    text = config.text
    if not isinstance(text, ClipTextConfig):
        return TextFacts()
    return TextFacts(
        activation=activation,
        num_heads=text.width // 64,
        layer_norm_eps=1e-5,
        end_token_id=text.vocab_size - 1,  # their code pools at the largest id of a text
    )
