"""Operations on tensors: matrix products and transfers to a device."""
