"""Random weights that a vision tower starts from when it has no parent."""

from torch import nn

# Layers whose output is added to the residual stream, by the end of their name.
TO_RESIDUAL = ("attention.out", "mlp.fc2", "mlp.w3")


def initialise(tower: nn.Module, num_layers: int) -> None:
    """Fill a tower as OpenAI's CLIP does: by width, smaller where many blocks add up.

    Convolutions keep PyTorch's initialisation, the mask embedding its zeros.
    """
    embedding = tower.get_parameter("class_embedding")
    std = len(embedding) ** -0.5
    nn.init.normal_(embedding, std=std)
    nn.init.normal_(tower.get_parameter("position_embedding"), std=std)
    for name, layer in tower.named_modules():
        if isinstance(layer, nn.Linear):
            depth = (2 * num_layers) ** -0.5 if name.endswith(TO_RESIDUAL) else 1.0
            nn.init.normal_(layer.weight, std=std * depth)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
