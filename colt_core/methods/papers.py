"""The papers that methods go back to, by their numbers on arXiv: the one place where their titles stand."""

PAPERS = {
    "1608.00060": "Chernozhukov et al., Double/Debiased Machine Learning for Treatment and Causal Parameters",
    "1803.03635": "Frankle, Carbin, The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks",
    "1805.09767": "Stich, Local SGD Converges Fast and Communicates Little",
    "1810.02340": "Lee, Ajanthan, Torr, SNIP: Single-shot Network Pruning based on Connection Sensitivity",
    "1810.05270": "Liu, Sun, Zhou, Huang, Darrell, Rethinking the Value of Network Pruning",
    "1912.05671": "Frankle, Dziugaite, Roy, Carbin, Linear Mode Connectivity and the Lottery Ticket Hypothesis",
    "2002.07376": "Wang, Zhang, Grosse, Picking Winning Tickets Before Training by Preserving Gradient Flow",
    "2006.05467": "Tanaka, Kunin, Yamins, Ganguli, Pruning neural networks without any data by iteratively conserving "
    "synaptic flow",
    "2009.08576": "Frankle, Dziugaite, Roy, Carbin, Pruning Neural Networks at Initialization: Why are We Missing the "
    "Mark?",
    "2010.02350": "Kalibhat, Balaji, Feizi, Winning Lottery Tickets in Deep Generative Models",
    "2103.16547": "Chen, Cheng, Wang, Gan, Liu, Wang, The Elastic Lottery Ticket Hypothesis",
    "2104.14753": "Movva, Frankle, Carbin, Studying the Consistency and Composability of Lottery Ticket Pruning Masks",
    "2105.12002": "Liang et al., Super Tickets in Pre-Trained Language Models: From Model Compression to Improving "
    "Generalization",
    "2202.04736": "Chen, Chen, Ma, Wang, Wang, Coarsening the Granularity: Towards Structurally Sparse Lottery Tickets",
    "2203.04248": "Bai, Wang, Tao, Li, Fu, Dual Lottery Ticket Hypothesis",
    "2208.10842": "Yin et al., Lottery Pools: Winning More by Interpolating Tickets without Increasing Training or "
    "Inference Cost",
    "2212.12770": "Hossain, Rakib, Elahi, Mohammed, Rahman, COLT: Cyclic Overlapping Lottery Tickets for Faster "
    "Pruning of Convolutional Neural Networks",
    "2305.14852": "Choi, Lee, Nam, Lee, Sparse Weight Averaging with Multiple Particles for Iterative Magnitude "
    "Pruning",
    "2306.16788": "Zimmer, Spiegel, Pokutta, Sparse Model Soups: A Recipe for Improved Pruning via Model Averaging",
}
