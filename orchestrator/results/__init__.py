"""A published study: its boards, their verification, and the networks that it ships."""
