import torch

from pixclip.data.batch import Buffers


def test_memory_that_a_tensor_or_a_part_of_it_still_has_is_not_given_again():
    buffers = Buffers()
    first = buffers.take((4, 8), torch.float32)
    place, row = first.data_ptr(), first[2]
    del first
    row.fill_(7)
    assert buffers.take((4, 8), torch.float32).fill_(1).data_ptr() != place
    assert row.eq(7).all()


def test_memory_that_nobody_has_is_given_again_also_for_less_and_for_another_type():
    buffers = Buffers()
    place = buffers.take((4, 8), torch.float32).data_ptr()
    again = buffers.take((3, 8), torch.float16)
    assert again.data_ptr() == place
    assert again.shape == (3, 8)
    assert again.dtype == torch.float16


def test_batches_that_grow_do_not_pile_up():
    buffers = Buffers()
    for size in range(1, 50):
        buffers.take((size,), torch.uint8)
    assert len(buffers._lent) == 1
