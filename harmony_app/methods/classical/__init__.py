"""Methods that are not learned: histogram matching, White Stripe, Nyul."""
