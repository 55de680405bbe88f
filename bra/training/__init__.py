"""Training: the routing loss and its targets, and the demonstration models from pictures to weights and a card."""

from bra.training.routing import AttentionTarget, BoxTarget, LabelTarget, TeacherTarget, routing_loss

__all__ = ["AttentionTarget", "BoxTarget", "LabelTarget", "TeacherTarget", "routing_loss"]
